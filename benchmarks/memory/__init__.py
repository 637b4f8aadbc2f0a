"""How near predicted memory is to what a real step takes."""
