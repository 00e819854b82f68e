CREATE TABLE `allowed_networks` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`value` text NOT NULL,
	`comment` text NOT NULL,
	`bouncers_json` text,
	`expires_ms` integer,
	`created_ms` integer NOT NULL,
	`actor` text NOT NULL,
	`revision` integer DEFAULT 1 NOT NULL
);
