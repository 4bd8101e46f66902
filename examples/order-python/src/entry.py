"""Prices an order, asks a person about large ones, and ships it.

Steps are functions. They run when they are called, once: their results are kept, and a run that goes on after a
crash, a deployment or a month of waiting gets them from there.
"""

import asyncio

from workers import WorkflowEntrypoint
from workers.workflows import NonRetryableError

PRICES = {"lamp": 90.0, "pen": 1.5}
LARGE = 150


class Order(WorkflowEntrypoint):
    async def run(self, event, step):
        items = event["payload"]["items"]

        @step.do(
            "price", config={"retries": {"limit": 3, "delay": "1 second", "backoff": "linear"}, "timeout": "1 minute"}
        )
        async def price(ctx):
            print(f"pricing {len(items)} items, attempt {ctx['attempt']}")
            if unknown := items.keys() - PRICES.keys():
                raise NonRetryableError(f"no such item: {', '.join(sorted(unknown))}")
            return sum(PRICES[name] * count for name, count in items.items())

        # A parameter named like a step is that step's result: `price` runs first, unless it has run already.
        @step.do("invoice")
        async def invoice(price):
            return f"{price:.2f} {self.env.CURRENCY}"

        if await price() > LARGE:
            answer = await step.wait_for_event("approval", "approval", timeout="7 days")
            if not answer["payload"]["approved"]:
                return {"shipped": False}

        def parcel(name, count):
            @step.do(f"pack {name}")
            async def pack():
                return f"{count} x {name}"

            return pack()

        parcels = await asyncio.gather(*(parcel(name, count) for name, count in items.items()))
        await step.sleep("let the glue dry", 10)
        return {"shipped": True, "invoice": await invoice(), "parcels": parcels}
