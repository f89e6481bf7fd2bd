"""A transformer as the users of our SDK write it."""


def transform(data, context):
    return data.swapcase() + str(context.args or "").encode()
