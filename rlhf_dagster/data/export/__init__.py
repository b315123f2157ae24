"""What a loop holds, out of it again: in the forms that others read, with a card that says what it is."""
