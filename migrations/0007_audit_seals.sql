ALTER TABLE `audit` ADD `digest` text;--> statement-breakpoint
CREATE INDEX `audit_actor` ON `audit` (`actor`);--> statement-breakpoint
CREATE INDEX `audit_action` ON `audit` (`action`);--> statement-breakpoint
CREATE INDEX `audit_target` ON `audit` (`target`);--> statement-breakpoint
CREATE INDEX `burnt_nonces_expires` ON `burnt_nonces` (`expires_ms`);--> statement-breakpoint
CREATE INDEX `idempotent_answers_expires` ON `idempotent_answers` (`expires_ms`);