"""Languages: what finestep says in English, said in another one; the English text stays what is kept and computed with."""
