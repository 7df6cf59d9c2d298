"""Parts for tests of BorgCube and of its plugins; shipped, so that plugin authors have them."""
