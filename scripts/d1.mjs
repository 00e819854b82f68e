// D1 for `npm start`: what workerd's own D1 binding asks over HTTP, answered from one Durable Object's SQLite.
// Speaks the protocol of the pinned workerd (cloudflare-internal:d1-api); every suite in test/e2e runs over it,
// so an update that changes it is noticed. Migrations are applied before the first question is answered.

import { DurableObject } from 'cloudflare:workers';
import migrations from 'migrations.js';

export class D1Store extends DurableObject {
  constructor(ctx, env) {
    super(ctx, env);
    const { storage } = ctx;
    storage.sql.exec(
      'CREATE TABLE IF NOT EXISTS d1_migrations (name TEXT PRIMARY KEY, applied_ms INTEGER NOT NULL)',
    );
    const applied = new Set(
      storage.sql
        .exec('SELECT name FROM d1_migrations')
        .toArray()
        .map((row) => row.name),
    );
    for (const { name, statements } of migrations) {
      if (applied.has(name)) continue;
      storage.transactionSync(() => {
        for (const statement of statements) storage.sql.exec(statement);
        storage.sql.exec('INSERT INTO d1_migrations VALUES (?, ?)', name, Date.now());
      });
    }
  }

  async fetch(request) {
    const asked = await request.json();
    const queries = Array.isArray(asked) ? asked : [asked];
    const asRows = new URL(request.url).searchParams.get('resultsFormat') === 'ROWS_AND_COLUMNS';
    try {
      const results = this.ctx.storage.transactionSync(() =>
        queries.map((query) => this.#run(query, asRows)),
      );
      return Response.json(results);
    } catch (error) {
      return Response.json({ success: false, error: error instanceof Error ? error.message : String(error) });
    }
  }

  #run({ sql, params }, asRows) {
    const cursor = this.ctx.storage.sql.exec(sql, ...(params ?? []));
    const columns = cursor.columnNames;
    const rows = [...cursor.raw()];
    const results = asRows
      ? { columns, rows }
      : rows.map((row) => Object.fromEntries(columns.map((name, at) => [name, row[at]])));
    const { changes, id } = this.ctx.storage.sql
      .exec('SELECT changes() AS changes, last_insert_rowid() AS id')
      .one();
    const meta = {
      served_by: 'lapidary',
      duration: 0,
      changes: cursor.rowsWritten > 0 ? changes : 0,
      last_row_id: id,
      changed_db: cursor.rowsWritten > 0,
      size_after: this.ctx.storage.sql.databaseSize,
      rows_read: cursor.rowsRead,
      rows_written: cursor.rowsWritten,
    };
    return { success: true, results, meta };
  }
}

export default {
  fetch(request, env) {
    return env.STORE.getByName('lapidary').fetch(request);
  },
};
