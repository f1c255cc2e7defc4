"""Plan, stages, scheduler, records and the run's layout; introduces the rooms to each other."""
