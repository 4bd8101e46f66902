// A JavaScript workflow: prices, an approval, a payment that is taken back when packing fails.
//
//   millrace deploy examples/order-javascript.js --var CURRENCY=EUR
//   millrace instances trigger order-javascript --id one --params '{"items": {"lamp": 2, "pen": 10}}'
//   millrace instances send-event order-javascript one approval --payload '{"approved": true}'

import { WorkflowEntrypoint } from "cloudflare:workers";
import { NonRetryableError } from "cloudflare:workflows";

const PRICES = { lamp: 40, pen: 1.5 };

export class OrderJavascript extends WorkflowEntrypoint {
  async run(event, step) {
    const items = Object.entries(event.payload.items ?? {});
    const retries = { limit: 3, delay: "2 seconds", backoff: "exponential" };

    // One step per item, side by side. What a step returns is recorded: it does not run again after a restart.
    const prices = await Promise.all(
      items.map(([name, count]) =>
        step.do(`price ${name}`, { retries }, async () => {
          if (!(name in PRICES)) throw new NonRetryableError(`no price for ${name}`);
          return PRICES[name] * count;
        }),
      ),
    );
    const total = prices.reduce((sum, price) => sum + price, 0);

    if (total > 50) {
      const { payload } = await step.waitForEvent("approval", { type: "approval", timeout: "3 days" });
      if (!payload.approved) return { state: "refused", total };
    }

    const payment = await step.do(
      "pay",
      async () => ({ id: crypto.randomUUID(), total, currency: this.env.CURRENCY ?? "EUR", at: new Date() }),
      { rollback: async ({ output }) => console.log(`giving payment ${output.id} back`) },
    );
    await step.sleep("before packing", "1 second");
    await step.do("pack", { retries }, async ({ attempt }) => {
      console.log(`packing, attempt ${attempt}`);
      if (event.payload.broken) throw new NonRetryableError("the box is broken");
    });
    return { state: "packed", total: payment.total, currency: payment.currency };
  }
}
