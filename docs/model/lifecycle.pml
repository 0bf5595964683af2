/*
 * The lifecycle of erasures and jobs of one model, for the model checker spin.
 *
 * Each d_step is one transaction, or one step that a process takes by itself. Between any two of
 * them every other process may act, and spin tries every order there is. docs/model.md says what
 * is modelled, what is left out, and how to run it.
 */

#include "tables.pml"
#include "transactions.pml"
#include "claims.pml"

#ifdef BUG_NO_LOCK
#define may_plan true
#else
#define may_plan (!planning)
#endif

/* The batch with the poisonous erasure kills every worker that computes on it. */
#ifdef POISON
#define is_poisoned(me) forgets(me, POISON)
#define may_refuse false
#else
#define is_poisoned(me) false
#define may_refuse true
#endif

/* After so many interruptions, and once it is completed, the answer is "too late". */
#ifdef BUG_LATE_CANCEL
#define may_cancel(which) (erasure[which].status != Cancelled)
#else
#define may_cancel(which) (is_pending(which) || erasure[which].status == NeedsAttention \
    || (erasure[which].status == Scheduled && (job[erasure[which].job].status == Queued \
        || job[erasure[which].job].interruptions < INTERRUPTIONS)))
#endif

#ifdef BUG_BLIND_RETRY
#define may_retry(which) (erasure[which].status == NeedsAttention \
    || erasure[which].status == Completed)
#else
#define may_retry(which) (erasure[which].status == NeedsAttention)
#endif

active [WORKERS] proctype Worker() {
end:
    do
    :: d_step { is_idle(_pid) && nudges -> claim(_pid, 0); skip }
    :: d_step { is_idle(_pid) && nudges -> claim(_pid, 1); skip }
    :: d_step { can_act(_pid) && worker[_pid].doing == Computing && !is_poisoned(_pid) ->
#ifndef BUG_ARTIFACT_AFTER_COMMIT
        worker[_pid].stored = 1;
#endif
        worker[_pid].doing = Stored
       }
    :: d_step { can_act(_pid) && worker[_pid].doing == Stored -> publish(_pid, 1); skip }
    :: d_step { can_act(_pid) && worker[_pid].doing == Computing && may_refuse ->
        refuse(_pid, 0);
        skip
       }
    :: d_step { can_act(_pid) && worker[_pid].doing == Computing && may_refuse ->
        refuse(_pid, 1);
        skip
       }
#ifdef BUG_SPLIT_PUBLISH
    :: d_step { worker[_pid].doing == Halfway ->
        complete(worker[_pid].job);
        let_go(_pid, Idle);
        committed();
        skip
       }
#endif
    :: d_step { worker[_pid].doing == Down -> worker[_pid].doing = Idle }
    :: d_step { worker[_pid].away -> worker[_pid].away = 0 }

    /*
     * It is killed by the poison, or by anything else; is stopped or cut off; is told to stop; its
     * attempt fails; it does not hear of its publication's commit.
     */
    :: d_step { is_busy(_pid) && is_poisoned(_pid) -> let_go(_pid, Down); committed(); skip }
    :: d_step { is_busy(_pid) && trouble > 0 ->
        trouble--;
        let_go(_pid, Down);
        committed();
        skip
       }
    :: d_step { can_act(_pid) && trouble > 0 -> trouble--; worker[_pid].away = 1 }
    :: d_step { can_act(_pid) && trouble > 0 -> trouble--; give_back(_pid, 0); skip }
    :: d_step { can_act(_pid) && trouble > 0 -> trouble--; give_back(_pid, 1); skip }
    :: d_step { can_act(_pid) && worker[_pid].doing == Stored && trouble > 0 ->
        trouble--;
        publish(_pid, 0);
        skip
       }

    /* The broker loses all that it has. */
    :: d_step { is_idle(_pid) && nudges && trouble > 0 -> trouble--; nudges = 0 }
    od
}

/* A worker's thread that keeps the lease. */
active [WORKERS] proctype Heartbeat() {
end:
    do
    :: d_step { has_to_beat(_pid - WORKERS) -> renew(_pid - WORKERS); skip }
    od
}

/* It plans and sweeps. What a planner read may be out of date when it writes: hence the lock. */
active [SCHEDULERS] proctype Scheduler() {
end:
    do
    :: d_step { may_plan && any_erasure(is_pending) && !any_job(is_unfinished) -> planning = 1 };
#ifdef BUG_NUDGE_BEFORE_COMMIT
        d_step { find_free_row(); nudges = nudges | (1 << j) };
#endif
        if
        :: d_step { true -> make_job(1); skip }
        :: d_step { true -> make_job(0); skip }                     /* its nudge is lost */
        :: d_step { trouble > 0 -> trouble--; planning = 0 }        /* it died: rolled back */
        fi
#ifndef BUG_NO_SWEEP
    :: d_step { any_job(has_run_out) -> sweep(); skip }
    :: d_step { any_job(is_running) && trouble > 0 -> trouble--; stop_overlong(); skip }
#endif
#ifndef BUG_NO_SECOND_NUDGE
    :: d_step { nudges == 0 && any_job(awaits_a_worker) ->
        for (j : 0 .. JOBS - 1) {
            nudges = nudges | (awaits_a_worker(j) << j)
        };
        skip
       }
#endif
#ifdef BUG_JOIN_UNFINISHED
    :: d_step { any_erasure(is_pending) && any_job(is_unfinished) -> join_unfinished(); skip }
#endif
    od
}

/* A tick of the database's clock. A worker that lives and is not away beats before the next. */
active proctype Clock() {
end:
    do
    :: d_step { any_job(runs_down) && !any_worker(has_to_beat) ->
        for (j : 0 .. JOBS - 1) {
            job[j].waits = 0;
            job[j].left = (job[j].left > 0 -> job[j].left - 1 : 0)
        }
        for (w : 0 .. WORKERS - 1) {
            if
            :: can_act(w) -> worker[w].due = 1
            :: worker[w].away -> worker[w].missed = 1
            :: else
            fi
        };
        skip
       }
    od
}

/* Who asked for one erasure, and the operator, through the API. */
active [ERASURES] proctype Client() {
    byte mine = _pid - 2 * WORKERS - SCHEDULERS - 1;

    d_step { true -> submit(mine); skip };
end:
    do
    :: d_step { may_cancel(mine) -> cancel(mine); skip }
#ifdef BUG_CANCEL_UNLOCKED
    :: d_step { erasure[mine].status == Scheduled && awaits_a_worker(erasure[mine].job) -> skip };
        d_step { true -> cancel_as_read(mine); skip }
#endif
    :: d_step { may_retry(mine) && retries > 0 -> retries--; submit(mine); skip }
#ifdef LIVENESS
    :: break    /* the work has to end though nobody cancels */
#endif
    od
}

#ifdef LIVENESS
/* Submissions and retries are few, so that this says: each accepted erasure comes to an end. */
ltl nothing_lost { []<> !any_erasure(is_open) }
#endif
