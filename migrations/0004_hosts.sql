CREATE TABLE `burnt_nonces` (
	`nonce` text PRIMARY KEY NOT NULL,
	`expires_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `engine_keys` (
	`id` integer PRIMARY KEY NOT NULL,
	`host` text NOT NULL,
	`digest` text NOT NULL,
	`created_ms` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `enrolment_hosts` (
	`enrolment_id` integer NOT NULL,
	`host` text NOT NULL,
	`fingerprint` text NOT NULL,
	`at_ms` integer NOT NULL,
	PRIMARY KEY(`enrolment_id`, `host`),
	FOREIGN KEY (`enrolment_id`) REFERENCES `enrolments`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `enrolments` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`ref` text NOT NULL,
	`digest` text NOT NULL,
	`hosts` text NOT NULL,
	`bouncer` text NOT NULL,
	`max_hosts` integer NOT NULL,
	`created_ms` integer NOT NULL,
	`expires_ms` integer NOT NULL,
	`revoked_ms` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `enrolments_ref_unique` ON `enrolments` (`ref`);--> statement-breakpoint
CREATE UNIQUE INDEX `enrolments_digest_unique` ON `enrolments` (`digest`);--> statement-breakpoint
CREATE TABLE `host_keys` (
	`bouncer` text PRIMARY KEY NOT NULL,
	`host_id` integer NOT NULL,
	`generation` integer DEFAULT 0 NOT NULL,
	`recoveries_left` integer NOT NULL,
	`recovery_allowed` integer DEFAULT false NOT NULL,
	`rotation_asked_ms` integer,
	`grace_ms` integer,
	`max_overlap_ms` integer,
	`life_ms` integer,
	FOREIGN KEY (`host_id`) REFERENCES `hosts`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `host_keys_host` ON `host_keys` (`host_id`);--> statement-breakpoint
CREATE TABLE `hosts` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text NOT NULL,
	`public_key` text NOT NULL,
	`fingerprint` text NOT NULL,
	`mode` text DEFAULT 'standard' NOT NULL,
	`created_ms` integer NOT NULL,
	`revision` integer DEFAULT 1 NOT NULL,
	`suspected_ms` integer,
	`seen_ms` integer,
	`removed_ms` integer,
	`instance` text
);
--> statement-breakpoint
CREATE UNIQUE INDEX `hosts_name_unique` ON `hosts` (`name`);--> statement-breakpoint
CREATE UNIQUE INDEX `hosts_instance_unique` ON `hosts` (`instance`);--> statement-breakpoint
CREATE UNIQUE INDEX `hosts_live_key` ON `hosts` (`public_key`) WHERE removed_ms IS NULL;