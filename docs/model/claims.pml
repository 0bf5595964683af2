/* What a worker does in the database under a claim: take it, keep it, end it. */

#ifdef BUG_BLIND_PUBLISH
#define may_publish(me) true
#else
#define may_publish(me) holds(me)
#endif
#ifdef BUG_NO_CAS
#define parent_is_current(me) true
#else
#define parent_is_current(me) (current == job_of(me).parent)
#endif

/* A nudge is taken, and the row claimed if it waits for a worker. */
inline claim(me, nudge_stays) {
    j = 0;
    do
    :: is_nudged(j) -> break
    :: else -> j++
    od;
    promise(nudge_names_a_row, job[j].status != NoRow);
    nudges = nudges & ~(1 << j);
    if
    :: awaits_a_worker(j) ->
        nudges = nudges | (nudge_stays << j);
        job[j].status = Running;
        job[j].fence++;
        job[j].left = LEASE;
        job[j].holder = me + 1;
        worker[me].doing = Computing;
        worker[me].job = j;
        worker[me].fence = job[j].fence;
        for (e : 0 .. ERASURES - 1) {
            worker[me].batch = worker[me].batch | (in_job(e, j) << e)
        }
    :: else
    fi;
    committed()
}

inline renew(me) {
    worker[me].due = 0;
    if
    :: holds(me) ->
        promise(no_stale_write, job_of(me).holder == me + 1);
#ifndef BUG_NO_HEARTBEAT
        job_of(me).left = LEASE;
#endif
        worker[me].missed = 0
    :: else -> let_go(me, Idle)
    fi;
    committed()
}

inline complete(row) {
    for (e : 0 .. ERASURES - 1) {
        if
        :: in_job(e, row) ->
            promise(completed_once, !erasure[e].done);
            erasure[e].done = 1;
            settle(e, Completed)
        :: else
        fi
    }
}

/* A worker that does not hear of its commit does it once more. */
inline publish(me, hears) {
    j = worker[me].job;
    if
    :: may_publish(me) && parent_is_current(me) ->
        promise(published_once, job[j].status != Published);
        promise(no_stale_write, job[j].holder == me + 1);
        for (e : 0 .. ERASURES - 1) {
            promise(cancelled_stays_out, erasure[e].status != Cancelled || !forgets(me, e));
            promise(completed_was_forgotten, !in_job(e, j) || forgets(me, e))
        }
        newest++;
        version[newest].parent = job[j].parent;
        version[newest].durable = worker[me].stored;
        version[job[j].parent].withdrawn = 1;
        current = newest;
        finish(j, Published);
#ifdef BUG_SPLIT_PUBLISH
        worker[me].doing = Halfway
#else
        complete(j);
        if
        :: hears -> let_go(me, Idle)
        :: else
        fi
#endif
    :: else -> let_go(me, Idle)
    fi;
    committed()
}

/* No method passed, or an error that no attempt would help: nothing is published. */
inline refuse(me, splits) {
    if
    :: holds(me) ->
        promise(no_stale_write, job_of(me).holder == me + 1);
        leave(worker[me].job, splits)
    :: else
    fi;
    let_go(me, Idle);
    committed()
}

/* A worker that is told to stop costs the job no attempt; a passing error does. */
inline give_back(me, fails) {
    if
    :: holds(me) ->
        promise(no_stale_write, job_of(me).holder == me + 1);
        if
        :: fails -> fail_attempt(worker[me].job)
        :: else -> queue_again(worker[me].job)
        fi
    :: else
    fi;
    let_go(me, Idle);
    committed()
}
