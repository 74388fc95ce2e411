"""Faults, with real processes: each is brought about, and what it may do no harm to is looked at.

Which test proves what ("redis": with django-q2's Redis broker, too); ``test_table.py`` compares.
Where processes meet as it happens, tests with threads that stop at exact points stand beside.

1. A worker is killed at work (redis).
   test_killed.py::test_a_worker_that_is_killed_at_work_is_replaced_and_its_task_finished_once
   test_killed.py::test_work_that_was_committed_when_the_cluster_is_killed_is_not_repeated
2. The whole process group is killed, with tasks running and queued (redis).
   test_killed.py::test_what_a_killed_cluster_had_running_and_queued_the_next_one_finishes_once
   test_killed.py::test_a_task_whose_cluster_is_killed_is_finished_once
3. A process is killed between its commit and its message (redis).
   test_killed.py::test_what_a_process_has_saved_that_is_killed_before_it_can_send_is_done
4. A worker is stopped for longer than its lease, and goes on.
   test_stopped.py::test_a_stopped_worker_is_refused_what_it_writes_in_autocommit
   test_stopped.py::test_a_worker_that_was_stopped_between_two_items_does_not_begin_the_second
   test_stopped.py::test_the_transaction_of_a_stopped_worker_is_undone_and_its_task_finished_once
5. A message is delivered five times at once (redis).
   test_deliveries.py::test_five_messages_at_once_start_a_task_once
   tests/test_cluster.py::test_a_duplicate_message_does_nothing
6. The broker is emptied (redis).
   test_deliveries.py::test_what_an_emptied_broker_has_lost_is_sent_again
7. The broker cannot be reached by a save (redis).
   test_deliveries.py::test_a_save_succeeds_though_its_broker_is_down_and_is_sent_later
8. The database server is restarted.
   test_postgresql_restart.py::test_what_runs_when_the_server_is_restarted_is_finished_once
9. Work ends itself, its process, or the memory.
   test_exits.py::test_what_work_raises_fails_its_item_and_the_worker_goes_on
   test_exits.py::test_work_that_is_interrupted_is_undone_and_begun_again_at_once
   test_exits.py::test_work_that_is_interrupted_each_time_fails
   test_exits.py::test_work_that_ends_its_process_is_taken_up_by_another
10. django-q2's time-outs, the soft and the hard one.
   test_timeouts.py::test_work_that_the_soft_time_out_stops_is_undone_and_begun_again
   test_timeouts.py::test_a_worker_that_swallows_the_soft_time_out_dies_of_the_hard_one
11. What work raises, or returns, cannot be told.
   test_exits.py::test_what_work_raises_fails_its_item_and_the_worker_goes_on
   test_exits.py::test_a_return_value_that_cannot_be_told_fails_its_item
   test_exits.py::test_a_return_value_that_json_cannot_carry_fails_nothing
12. Two sweeps and a late worker meet.
   test_sweeps.py::test_two_sweeps_and_a_late_worker_at_once_finish_the_task_once
   tests/test_sweep.py::test_send_a_dead_workers_task_once
   tests/promises/test_once.py::test_a_stale_worker_may_write_nothing_more
13. A payload is of an unknown version.
   test_deliveries.py::test_a_payload_of_another_version_is_refused
14. A transaction, or a savepoint, is rolled back after the save (redis).
   test_transactions.py::test_a_transaction_that_rolls_back_leaves_nothing_for_the_cluster
15. The object is deleted by raw SQL while its task is queued.
   test_deliveries.py::test_an_object_that_was_deleted_by_raw_sql_while_queued_fails_alone
16. Four processes write to the database beside two workers.
   test_transactions.py::test_four_writers_beside_two_workers_lose_nothing
17. Two transactions meet in a deadlock.
   test_transactions.py::test_of_two_transactions_in_a_deadlock_one_is_undone_and_the_other_runs
18. A worker, or the whole cluster, is told to end (redis).
   test_shutdown.py::test_a_worker_that_is_told_to_end_ends_its_item_and_leaves_the_rest_to_others
   test_shutdown.py::test_a_worker_that_waits_for_tasks_ends_when_it_is_told_to
   test_shutdown.py::test_a_worker_that_is_told_twice_dies_at_once
   test_shutdown.py::test_a_cluster_that_is_told_to_end_leaves_the_rest_to_the_next_one
19. Work hangs.
   test_stopped.py::test_work_that_hangs_is_taken_over_though_its_worker_gives_signs_of_life
20. A worker that waits is killed: the queue between django-q2's processes stays locked (redis).
   test_locked_queue.py::test_workers_run_what_a_locked_queue_does_not_bring
   test_locked_queue.py::test_a_worker_that_does_so_ends_its_item_when_it_is_told_to_end
   test_locked_queue.py::test_the_time_out_of_the_queue_holds_for_what_a_worker_does_so
   test_locked_queue.py::test_workers_that_are_busy_with_other_messages_do_nothing_beside_them
   test_locked_queue.py::test_workers_whose_cluster_is_dead_begin_nothing
"""
