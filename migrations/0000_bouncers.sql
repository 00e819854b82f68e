CREATE TABLE `bouncers` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text NOT NULL,
	`created_ms` integer NOT NULL,
	`metrics_json` text,
	`metrics_ms` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `bouncers_name_unique` ON `bouncers` (`name`);--> statement-breakpoint
CREATE TABLE `key_epoch` (
	`id` integer PRIMARY KEY NOT NULL,
	`epoch` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `key_versions` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`bouncer_id` integer NOT NULL,
	`digest` text NOT NULL,
	`created_ms` integer NOT NULL,
	FOREIGN KEY (`bouncer_id`) REFERENCES `bouncers`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE UNIQUE INDEX `key_versions_digest_unique` ON `key_versions` (`digest`);--> statement-breakpoint
INSERT INTO `key_epoch` (`id`, `epoch`) VALUES (0, 0);
