"""The page that shows the contracts and judges messages in the browser: `just contracts-site`."""
