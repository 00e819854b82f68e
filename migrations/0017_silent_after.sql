ALTER TABLE `bouncers` ADD `silent_after_ms` integer;--> statement-breakpoint
CREATE INDEX `bouncers_silent_after` ON `bouncers` (`silent_after_ms`) WHERE silent_after_ms IS NOT NULL;