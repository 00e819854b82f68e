CREATE TABLE `host_machines` (
	`host_id` integer PRIMARY KEY NOT NULL,
	`machine` text NOT NULL,
	`engine` text NOT NULL,
	`created_ms` integer NOT NULL,
	`validated_ms` integer,
	FOREIGN KEY (`host_id`) REFERENCES `hosts`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE UNIQUE INDEX `host_machines_machine_unique` ON `host_machines` (`machine`);--> statement-breakpoint
ALTER TABLE `enrolments` ADD `machine_engine` text;--> statement-breakpoint
ALTER TABLE `hosts` ADD `machine_engine` text;