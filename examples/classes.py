"""A class whose objects are set up once in each container. `tidemill run examples/classes.py`"""

import tidemill

app = tidemill.App("classes")


@app.cls()
class Primes:
    below: int = tidemill.parameter(default=100)

    @tidemill.enter()
    def sieve(self) -> None:
        numbers = range(2, self.below)
        self.primes = {n for n in numbers if all(n % d for d in range(2, int(n**0.5) + 1))}

    @tidemill.method()
    def contains(self, n: int) -> bool:
        return n in self.primes


@app.local_entrypoint()
def main() -> None:
    print(list(Primes().contains.map([2, 9, 97])))
    print(Primes(below=200).contains.remote(199))
