CREATE TABLE `key_changes` (
	`epoch` integer NOT NULL,
	`bouncer_id` integer NOT NULL,
	PRIMARY KEY(`epoch`, `bouncer_id`)
);
