class RecipeError(ValueError): pass
