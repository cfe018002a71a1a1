"""Published models: fetched by digest, converted, kept."""
