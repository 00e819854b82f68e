CREATE TABLE `feed_location` (
	`id` integer PRIMARY KEY NOT NULL,
	`location` text NOT NULL,
	`fixed_ms` integer NOT NULL
);
--> statement-breakpoint
INSERT INTO `feed_location` SELECT 0, '', min(`at_ms`) FROM `audit` HAVING count(*) > 0;
