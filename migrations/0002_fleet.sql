CREATE TABLE `rotation_members` (
	`rotation_id` integer NOT NULL,
	`bouncer_id` integer NOT NULL,
	`name` text NOT NULL,
	`number` integer NOT NULL,
	`due_ms` integer NOT NULL,
	PRIMARY KEY(`rotation_id`, `bouncer_id`),
	FOREIGN KEY (`rotation_id`) REFERENCES `rotations`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE TABLE `rotations` (
	`id` integer PRIMARY KEY NOT NULL,
	`created_ms` integer NOT NULL,
	`actor` text NOT NULL,
	`selector_json` text NOT NULL,
	`grace_ms` integer NOT NULL,
	`max_overlap_ms` integer NOT NULL,
	`spread_ms` integer NOT NULL
);
