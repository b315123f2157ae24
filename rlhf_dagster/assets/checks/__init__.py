"""The checks of a loop's assets that stop nothing: each looks, and says in a sentence what it found."""
