"""Many inputs at once: count words in parallel. `tidemill run examples/map_words.py --files 20`"""

import tidemill

app = tidemill.App("words")


@app.function()
def count(text: str) -> int:
    return len(text.split())


@app.local_entrypoint()
def main(files: int = 20) -> None:
    texts = ["the mill turns when the tide comes in " * n for n in range(1, files + 1)]
    for number, words in enumerate(count.map(texts), start=1):
        print(f"text {number}: {words} words")
