// Asks portfolio-ops for backups, from a container that mounts the site's run/ folder. Needs Node 18 and nothing else.
//
//   import { call, galleryAdded } from './backup-client.mjs';
//   node backup-client.mjs NAME        asks for a backup because the gallery NAME was added
import { randomUUID } from 'node:crypto';
import { rename, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const RUN = process.env.PORTFOLIO_OPS_RUN ?? '/app/run';
const TOKEN = process.env.PORTFOLIO_OPS_TOKEN; // only where the site asks for one
const PATIENCE = 90_000; // milliseconds; an answer waits up to 50 s for its backup, and says then where to ask for it

/** One call; { status, body } of its answer. Rejects if nobody listens, or if there is no answer in time. */
export function call(method, path, document) {
  const body = document === undefined ? '' : JSON.stringify(document);
  const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) };
  if (TOKEN) headers.Authorization = `Bearer ${TOKEN}`;
  return new Promise((resolve, reject) => {
    const options = { socketPath: join(RUN, 'portfolio-ops.sock'), method, path, headers, timeout: PATIENCE };
    const asked = request(options, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        try {
          resolve({ status: answer.statusCode, body: JSON.parse(Buffer.concat(chunks).toString()) });
        } catch (error) {
          reject(error);
        }
      });
    });
    asked.on('timeout', () => asked.destroy(new Error('portfolio-ops did not answer in time')));
    asked.on('error', reject);
    asked.end(body);
  });
}

/** Ask by a file: also while nobody listens. It is taken as soon as somebody looks, and is there whole or not at all. */
export async function leaveRequest(galleryName) {
  const name = `gallery-${randomUUID()}`;
  const folder = join(RUN, 'triggers');
  await writeFile(join(folder, `.${name}`), JSON.stringify({ galleryName }), { flush: true });
  await rename(join(folder, `.${name}`), join(folder, name));
}

/** A gallery was added: ask for a backup. Where the API cannot be reached, or has no time, a file asks for it. */
export async function galleryAdded(galleryName) {
  try {
    const answer = await call('POST', '/api/admin/backup-on-gallery-add', { galleryName });
    if (answer.status !== 429) return answer;
  } catch (error) {
    console.error('[BACKUP] portfolio-ops cannot be reached:', error.message);
  }
  await leaveRequest(galleryName);
  return { status: 202, body: { success: true, message: 'The backup is asked for', galleryName } };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { status, body } = await galleryAdded(process.argv[2]);
  console.log(status, JSON.stringify(body));
  process.exitCode = body.success ? 0 : 1;
}
