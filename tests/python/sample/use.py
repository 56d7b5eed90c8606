"""What a program does with the app."""

from shop import add

res = add.delay(2, 3)
print(res.id, res.ready(), res.get(timeout=5), res.ready())
