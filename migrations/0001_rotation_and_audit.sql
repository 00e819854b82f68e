CREATE TABLE `audit` (
	`seq` integer PRIMARY KEY NOT NULL,
	`at_ms` integer NOT NULL,
	`actor` text NOT NULL,
	`action` text NOT NULL,
	`target` text NOT NULL,
	`detail_json` text NOT NULL,
	`previous_hash` text NOT NULL,
	`hash` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `idempotent_answers` (
	`actor` text NOT NULL,
	`key` text NOT NULL,
	`request_hash` text NOT NULL,
	`status` integer NOT NULL,
	`body_json` text NOT NULL,
	`expires_ms` integer NOT NULL,
	PRIMARY KEY(`actor`, `key`)
);
--> statement-breakpoint
CREATE TABLE `operator_tokens` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text NOT NULL,
	`digest` text NOT NULL,
	`role` text NOT NULL,
	`created_ms` integer NOT NULL,
	`expires_ms` integer,
	`revoked_ms` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `operator_tokens_name_unique` ON `operator_tokens` (`name`);--> statement-breakpoint
CREATE UNIQUE INDEX `operator_tokens_digest_unique` ON `operator_tokens` (`digest`);--> statement-breakpoint
CREATE TABLE `revoked_digests` (
	`digest` text PRIMARY KEY NOT NULL,
	`revoked_ms` integer NOT NULL
);
--> statement-breakpoint
ALTER TABLE `bouncers` ADD `revision` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `bouncers` ADD `view_json` text;--> statement-breakpoint
ALTER TABLE `bouncers` ADD `allow_json` text;--> statement-breakpoint
ALTER TABLE `bouncers` ADD `rate_limit` integer;--> statement-breakpoint
ALTER TABLE `bouncers` ADD `version_count` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `number` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `state` text DEFAULT 'current' NOT NULL;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `first_used_ms` integer;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `expires_ms` integer;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `deadline_ms` integer;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `grace_ms` integer;--> statement-breakpoint
ALTER TABLE `key_versions` ADD `max_overlap_ms` integer;--> statement-breakpoint
CREATE INDEX `key_versions_bouncer` ON `key_versions` (`bouncer_id`);