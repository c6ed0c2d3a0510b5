/* What the machine is made of. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define WARP 32
#define MOST_THREADS 1024

typedef union {
    uint64_t u64; int64_t s64; uint32_t u32; int32_t s32; uint16_t u16; int16_t s16; uint8_t u8; int8_t s8;
    float f32; double f64;
} cell;

/* What of an instruction's results holds something, where of its sources only a half may: all or nothing; the same halves;
   what is joined of two, or parted into two. Or the sources must hold something, since now it shows. */
enum { ALL_OR_NOTHING, SAME_HALVES, JOINED, PARTED, MUST };
enum { NOTHING, LOWER, UPPER, BOTH };

typedef struct {
    int32_t operation, guard, negated, results, operands, holds;
    int32_t operand[14];         /* the places of registers: results, then sources */
    int32_t width, count;        /* of an access to memory: the bytes of an element, and how many elements */
    int64_t number;              /* what is added to an address; the instruction that a branch goes to */
} instruction;

/* Who touched a byte, and when. Moments are what barriers part; they are counted through all blocks of all launches, so
   that nothing here is ever wiped. */
typedef struct {
    uint32_t written, read;      /* the last moments; 0 for never */
    uint32_t read_elsewhere;     /* the last one in another block than that of `read` */
    uint32_t readers;            /* the warps that read it at the moment `read` */
    uint16_t writer;             /* the thread that wrote it last */
} history;

typedef struct { uint64_t begin, end; int64_t histories; } range;

typedef struct {
    const range *ranges;         /* in the order of their beginnings, which is that of their ends */
    int64_t count;
    history *histories;
    char *base;                  /* where address 0 is */
    int64_t of_a_block;          /* shared memory: every block begins with its own, empty */
} memory;

typedef struct {
    const instruction *code;
    int64_t length;
    cell *registers;             /* [register][thread] */
    uint8_t *held;               /* the halves of each register that something was put in since the block began */
    uint8_t *on;                 /* the threads that carry out the present instruction */
    int32_t threads, count;      /* count: of registers */
    memory global, shared;
    int64_t next;                /* instruction; -1 for none */
    uint32_t launched, born, moment; /* the first moments of launch and block, and the present one */
    int64_t at, block, thread;   /* of a complaint: instruction, number in the launch, thread */
    uint64_t address;
} machine;

_Static_assert(sizeof(instruction) == 96 && sizeof(history) == 20, "as program.py and machine.py have them");

#define EACH_THREAD for (int t = 0; t < m->threads; t++) if (m->on[t])
#define REGISTER(k) m->registers[(int64_t)i->operand[k] * m->threads + t]
#define SOURCE(k, type) REGISTER(i->results + (k)).type
#define RESULT(k, type, value) do { cell made = {0}; made.type = (value); REGISTER(k) = made; } while (0)

static const char *complain(machine *m, int thread, const char *why) {
    m->thread = thread;
    return why;
}
