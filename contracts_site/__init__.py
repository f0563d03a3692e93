"""The page that shows the contracts and checks messages in the browser: `just contracts-site`."""
