/*
 * The rows, the broker, the workers' memory, and the promises. What only the promises look at,
 * and no process, is called a ghost.
 */

#ifndef ERASURES
#define ERASURES 2      /* 2 or 3 */
#endif
#ifndef WORKERS
#define WORKERS 2       /* 1 or 2 */
#endif
#ifndef SCHEDULERS
#define SCHEDULERS 2    /* 1 or 2 */
#endif
#ifndef TROUBLE
#define TROUBLE 2       /* mishaps in one run: deaths, pauses, errors, rollbacks, lost nudges */
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2      /* failed attempts until a batch is split, or needs attention */
#endif
#ifndef INTERRUPTIONS
#define INTERRUPTIONS 1 /* cancels that may stop one job while it runs */
#endif
#ifndef RETRIES
#define RETRIES 1       /* how often an operator sends needs_attention back, in all */
#endif
#define LEASE 2         /* ticks of the clock; a live worker beats once in each */

#ifdef BUG_TWO_PLANNERS
#define BUG_NO_LOCK
#define BUG_NO_INDEX
#endif

/* As many as can be unfinished, even by a planted bug, or held by a worker that is out of date. */
#define JOBS (WORKERS + SCHEDULERS)
#define VERSIONS (ERASURES + RETRIES + 3)

/* The promises. Every run asserts that all of them hold, or the one that -DCHECK=name chooses. */
bit one_unfinished_job = 1;
bit one_chain = 1;
bit all_or_nothing = 1;
bit artifact_durable = 1;
bit no_stale_write = 1;
bit published_once = 1;
bit completed_once = 1;
bit completed_was_forgotten = 1;
bit cancelled_stays_out = 1;
bit nudge_names_a_row = 1;
bit live_worker_keeps_its_lease = 1;
bit poison_alone_needs_attention = 1;

#ifndef CHECK
#define CHECK (one_unfinished_job && one_chain && all_or_nothing && artifact_durable \
    && no_stale_write && published_once && completed_once && completed_was_forgotten \
    && cancelled_stays_out && nudge_names_a_row && live_worker_keeps_its_lease \
    && poison_alone_needs_attention)
#endif
#define promise(name, holds) name = (holds); assert(CHECK)

mtype:erasure = { Absent, Pending, Scheduled, Completed, Cancelled, NeedsAttention };
mtype:job = { NoRow, Queued, Running, Published, Ended };

typedef Erasure {
    mtype:erasure status = Absent;
    byte job;           /* while it is scheduled */
    byte cohort;        /* who is batched together: 0, or a half of a batch that was split */
    bit done            /* ghost: a publication completed it */
};

typedef Job {
    mtype:job status = NoRow;
    byte parent;
    byte fence;         /* raised by every claim */
    byte left;          /* ticks until its lease runs out */
    byte failures;
    byte interruptions;
    bit waits;          /* backs off until the next tick */
    byte holder         /* ghost: 1 + the worker that has it by right, or 0 */
};

typedef Version {
    byte parent;
    bit withdrawn;
    bit durable         /* its artifact is on the disk */
};

Erasure erasure[ERASURES];
Job job[JOBS];
Version version[VERSIONS];
byte newest = 1;        /* version 1 is the base checkpoint, 0 is none */
byte current = 1;       /* what the model's row points to */
bit planning;           /* the planner's lock */

/* The broker has for each row a bit that says "look at it". */
byte nudges;

/* What dies with a worker. */
mtype:step = { Down, Idle, Computing, Stored, Halfway };

typedef Claim {
    mtype:step doing = Idle;
    byte job;
    byte fence;
    byte batch;         /* the erasures that it forgets, a bit for each, as read at the claim */
    bit stored;         /* its artifact is on the disk */
    bit away;           /* stopped, or cut off from the database */
    bit due;            /* the clock waits for its heartbeat */
    bit missed          /* ghost: was away at a tick since it last had the lease for sure */
};

Claim worker[WORKERS];
byte trouble = TROUBLE;
byte retries = RETRIES;

/* Scratch, without meaning between two steps. */
hidden byte e;
hidden byte j;
hidden byte n;
hidden byte v;
hidden byte w;

#define is_pending(which) (erasure[which].status == Pending)
#define is_open(which) (is_pending(which) || erasure[which].status == Scheduled)
#define in_job(which, row) (erasure[which].status == Scheduled && erasure[which].job == row)
#define is_running(row) (job[row].status == Running)
#define is_unfinished(row) (job[row].status == Queued || is_running(row))
#define has_run_out(row) (is_running(row) && job[row].left == 0)
#define runs_down(row) (job[row].left > 0 || job[row].waits)
#define awaits_a_worker(row) (job[row].status == Queued && !job[row].waits)
#define is_nudged(row) ((nudges >> (row)) & 1)
#define is_idle(me) (worker[me].doing == Idle)
#define is_busy(me) (worker[me].doing != Idle && worker[me].doing != Down)
#define can_act(me) (is_busy(me) && !worker[me].away)
#define has_to_beat(me) (can_act(me) && worker[me].due)
#define forgets(me, which) ((worker[me].batch >> (which)) & 1)
#define job_of(me) job[worker[me].job]
#ifdef BUG_NO_FENCE
#define holds(me) (job_of(me).status == Running)
#else
#define holds(me) (job_of(me).status == Running && job_of(me).fence == worker[me].fence)
#endif

/* Whether it is true of any; to ask twice about one does no harm. */
#define any_erasure(is) (is(0) || is(1) || is(ERASURES - 1))
#define any_job(is) (is(0) || is(1) || is(JOBS - 1) || is(JOBS / 2))
#define any_worker(is) (is(0) || is(WORKERS - 1))
