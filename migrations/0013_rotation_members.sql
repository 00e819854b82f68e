CREATE TABLE `__new_rotation_members` (
	`rotation_id` integer NOT NULL,
	`bouncer_id` integer NOT NULL,
	`name` text NOT NULL,
	`number` integer NOT NULL,
	`due_ms` integer NOT NULL,
	PRIMARY KEY(`rotation_id`, `bouncer_id`)
);
--> statement-breakpoint
INSERT INTO `__new_rotation_members` SELECT `rotation_id`, `bouncer_id`, `name`, `number`, `due_ms` FROM `rotation_members`;--> statement-breakpoint
DROP TABLE `rotation_members`;--> statement-breakpoint
ALTER TABLE `__new_rotation_members` RENAME TO `rotation_members`;
