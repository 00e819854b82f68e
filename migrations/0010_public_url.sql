CREATE TABLE `public_url` (
	`id` integer PRIMARY KEY NOT NULL,
	`url` text NOT NULL,
	`fixed_ms` integer NOT NULL,
	`actor` text NOT NULL
);
--> statement-breakpoint
CREATE TABLE `relayed_audiences` (
	`audience` text PRIMARY KEY NOT NULL,
	`noted_ms` integer NOT NULL
);
--> statement-breakpoint
ALTER TABLE `bouncers` ADD `lapi_name` text;--> statement-breakpoint
ALTER TABLE `hosts` ADD `last_refused_ms` integer;--> statement-breakpoint
ALTER TABLE `hosts` ADD `last_refused_why` text;