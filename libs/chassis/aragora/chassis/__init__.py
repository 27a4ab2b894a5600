"""The microservice chassis: what every service needs to run. It knows no word of the domain."""
