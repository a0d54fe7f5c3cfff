// The admin endpoints of the backend, handed on to portfolio-ops. In place of routes that run shell scripts:
//
//   app.use('/api/admin', backupRouter(requireAdmin));
import { Router, json } from 'express';
import { call } from './backup-client.mjs';

/** `mayCall` is the backend's own middleware that lets only administrators pass: portfolio-ops does not know them. */
export function backupRouter(mayCall) {
  const router = Router();
  const hand = (method, path) => async (req, res) => {
    try {
      const { status, body } = await call(method, `/api/admin/${path}`, method === 'POST' ? req.body : undefined);
      res.status(status).json(body);
    } catch (error) {
      console.error('[BACKUP] portfolio-ops cannot be reached:', error.message);
      res.status(502).json({ success: false, message: 'Backup failed', code: 'BACKUP_ERROR', error: error.message });
    }
  };
  const body = json({ limit: '64kb' });
  router.post('/trigger-backup', mayCall, body, hand('POST', 'trigger-backup'));
  router.post('/backup-on-gallery-add', mayCall, body, hand('POST', 'backup-on-gallery-add'));
  router.get('/backup-status', mayCall, hand('GET', 'backup-status'));
  return router;
}
