"""Where prices come from: documented price tables (CSV files in this folder) and the genai-prices library."""
