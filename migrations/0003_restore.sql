CREATE TABLE `ends_outbox` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`digest` text NOT NULL,
	`ends_ms` integer NOT NULL
);
--> statement-breakpoint
ALTER TABLE `key_epoch` ADD `reconciled_ms` integer DEFAULT 0 NOT NULL;--> statement-breakpoint
INSERT INTO `ends_outbox` (`digest`, `ends_ms`) SELECT `digest`, `revoked_ms` FROM `revoked_digests`;
--> statement-breakpoint
INSERT INTO `ends_outbox` (`digest`, `ends_ms`) SELECT `digest`, `revoked_ms` FROM `operator_tokens` WHERE `revoked_ms` IS NOT NULL;
--> statement-breakpoint
INSERT INTO `ends_outbox` (`digest`, `ends_ms`) SELECT `digest`, `deadline_ms` FROM `key_versions` WHERE `state` = 'previous' AND `deadline_ms` IS NOT NULL;
