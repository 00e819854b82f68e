CREATE TABLE `blocked_machines` (
	`machine` text PRIMARY KEY NOT NULL,
	`blocked_ms` integer NOT NULL,
	`actor` text NOT NULL,
	`reason` text
);
