"""What is looked at before a loop goes on: whether models belong together, what is deleted, left out, or too little."""
