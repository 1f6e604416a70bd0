"""Other people's tools: what a sweep gives to them and takes from them."""
