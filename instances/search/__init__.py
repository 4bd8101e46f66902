"""Finding instances across an account: by any spelling of an id, by filters, in several orders, with totals."""
