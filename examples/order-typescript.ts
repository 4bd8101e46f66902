// A TypeScript workflow; types are taken out when it is deployed. It starts a child for every parcel and follows it.
//
//   millrace deploy examples/order-typescript.ts
//   millrace instances trigger order-typescript --id one --params '{"parcels": ["a", "b"]}' --wait

import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep } from "cloudflare:workers";

interface Params {
  parcels?: string[];
  parcel?: string;
}

interface Receipt {
  parcel: string;
  code: number;
}

export class OrderTypescript extends WorkflowEntrypoint<unknown, Params> {
  async run(event: Readonly<WorkflowEvent<Params>>, step: WorkflowStep): Promise<Receipt | Receipt[]> {
    const { parcels = [], parcel } = event.payload;
    if (parcel !== undefined) return await this.ship(parcel, step);

    // Every class of a script is bound to its own workflow under `ctx.exports`.
    const { OrderTypescript: children } = this.ctx.exports;
    const ids = await step.do("start children", async (): Promise<string[]> => {
      const params = parcels.map((each) => ({ id: `${event.instanceId}-${each}`, params: { parcel: each } }));
      await children.createBatch({ instances: params });
      return params.map(({ id }) => id);
    });

    return await Promise.all(
      ids.map((id) =>
        step.do(`receipt of ${id}`, async (): Promise<Receipt> => {
          const feed = await (await children.get(id)).subscribe({ filter: ["workflow_completed"] });
          const { value } = await feed.next();
          return value.output as Receipt;
        }),
      ),
    );
  }

  private async ship(parcel: string, step: WorkflowStep): Promise<Receipt> {
    await step.sleep("collect", 50);
    return await step.do("ship", async () => ({ parcel, code: parcel.length * 1000 + 7 }));
  }
}
