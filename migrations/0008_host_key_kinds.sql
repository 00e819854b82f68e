CREATE TABLE `__new_host_keys` (
	`kind` text NOT NULL,
	`name` text NOT NULL,
	`host_id` integer NOT NULL,
	`generation` integer DEFAULT 0 NOT NULL,
	`recoveries_left` integer NOT NULL,
	`recovery_allowed` integer DEFAULT false NOT NULL,
	`rotation_asked_ms` integer,
	`grace_ms` integer,
	`max_overlap_ms` integer,
	`life_ms` integer,
	PRIMARY KEY(`kind`, `name`),
	FOREIGN KEY (`host_id`) REFERENCES `hosts`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
INSERT INTO `__new_host_keys` SELECT CASE WHEN `bouncer` = '' THEN 'engine' WHEN `bouncer` LIKE 'machine:%' THEN 'machine' ELSE 'bouncer' END, CASE WHEN `bouncer` LIKE 'machine:%' THEN substr(`bouncer`, 9) ELSE `bouncer` END, `host_id`, `generation`, `recoveries_left`, `recovery_allowed`, `rotation_asked_ms`, `grace_ms`, `max_overlap_ms`, `life_ms` FROM `host_keys`;--> statement-breakpoint
DROP TABLE `host_keys`;--> statement-breakpoint
ALTER TABLE `__new_host_keys` RENAME TO `host_keys`;--> statement-breakpoint
CREATE INDEX `host_keys_host` ON `host_keys` (`host_id`);
