CREATE TABLE `audit_start` (
	`id` integer PRIMARY KEY NOT NULL,
	`seq` integer NOT NULL,
	`hash` text NOT NULL
);
--> statement-breakpoint
CREATE INDEX `revoked_digests_revoked` ON `revoked_digests` (`revoked_ms`);