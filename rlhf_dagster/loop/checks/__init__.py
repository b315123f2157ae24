"""What is looked at in a loop's data, labels and models, each by one function that says in a sentence what it found."""
