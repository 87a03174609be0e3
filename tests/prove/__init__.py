"""Long proofs, outside CI: `make prove [PART=exact] [MINUTES=10]`.

A *part* is a file `tests/prove/parts/NAME.py` with a tuple `CHECKS` of `tests.prove.check.Check`; being there registers
it. A *check* has a function from a seed to an `Outcome` and says how much is wanted:

    def mutation(seed: int) -> Outcome:
        data = mutate(GOOD_FILE, random.Random(seed))
        return Outcome(finding=f"seed {seed}: accepted" if is_accepted(data) else None)

    CHECKS = (Check("mutations", mutation, wanted={"cases": 100_000}),)

- A finding is a sentence that says what went wrong. An exception is a finding too. A case must be determined by its
  seed, for a finding's seed is tried again at the next run and must then show whether it was mended.
- `Outcome.counts` adds to the totals (`cases` is counted by itself); a check is complete when every total of `wanted`
  is reached.
- Figures that are judged together, such as timings, go into `Outcome.samples`; `Check.judge` gets all samples of all
  runs and returns figures and perhaps a finding. Without a judge the median of each is reported.

The runner gives every check its turn, in proportion to what it lacks. The result is
`benchmarks/results/DATE-prove-PART.json`; the next run reads the newest one and goes on with the next seed, so counts
add up over runs. Each run notes its commit and machine beside its seeds; whether the counts of several commits may be
taken together is for the reader to judge.
"""
