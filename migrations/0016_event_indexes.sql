CREATE INDEX `hosts_suspected` ON `hosts` (`suspected_ms`) WHERE suspected_ms IS NOT NULL;--> statement-breakpoint
CREATE INDEX `hosts_refused` ON `hosts` (`last_refused_ms`) WHERE last_refused_ms IS NOT NULL;--> statement-breakpoint
CREATE INDEX `key_versions_expires` ON `key_versions` (`expires_ms`) WHERE expires_ms IS NOT NULL;