-------------------------- MODULE TaleGrantedMeter --------------------------
(* A shared token budget that is metered directly and through grants. A      *)
(* direct debit is admitted in full while the meter is below the budget, so  *)
(* one of them may cross it. A grant takes at most what is left, and its     *)
(* holder meters that without asking. Holders crash, and what they held is   *)
(* lost. They give back what they do not need, which counts if it arrives in *)
(* the window that it came from. When the window rolls, what is held ends.   *)
(* What is on its way to a holder counts as held.                            *)
(* Statement and proof: docs/proofs.md, "Token budgets".                     *)
EXTENDS Integers

CONSTANTS
    Holders,    \* who takes grants; not empty
    Budget,     \* units that one window meters; positive
    Largest,    \* the most units in one debit
    Batch,      \* the most units in one grant
    Broken      \* the rule that does not hold, to show what it is for:
                \*   "none"
                \*   "part"    a grant takes at most what is left
                \*   "own"     a holder meters at most what it holds
                \*   "window"  what is given back counts only in the window that it came from
                \*   "lost"    what a holder was granted when it crashes stays counted

VARIABLES
    served,     \* what the shared meter has counted since the window rolled
    held,       \* units that each holder may still meter
    spent,      \* units of its grants that it has metered; kept only if "lost" is broken
    back,       \* units that each holder has given back and that have not arrived
    late,       \* whether they were granted in an earlier window
    metered     \* units metered by anyone since the window rolled

vars == <<served, held, spent, back, late, metered>>

ASSUME Holders # {} /\ Budget >= 1 /\ Largest >= 1 /\ Batch >= 1
ASSUME Broken \in {"none", "part", "own", "window", "lost"}

Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b

Bound == Budget + Largest - 1

RECURSIVE Owed(_)
Owed(holders) ==
    IF holders = {} THEN 0
    ELSE LET h == CHOOSE x \in holders : TRUE
         IN held[h] + (IF late[h] THEN 0 ELSE back[h]) + Owed(holders \ {h})

TypeOK ==
    /\ served \in 0..Bound
    /\ held \in [Holders -> 0..(Batch + Largest - 1)]
    /\ spent \in [Holders -> 0..Bound]
    /\ back \in [Holders -> 0..(Batch + Largest - 1)]
    /\ late \in [Holders -> BOOLEAN]
    /\ metered \in 0..Bound

Init ==
    /\ served = 0
    /\ held = [h \in Holders |-> 0]
    /\ spent = [h \in Holders |-> 0]
    /\ back = [h \in Holders |-> 0]
    /\ late = [h \in Holders |-> FALSE]
    /\ metered = 0

Debit(n) ==
    /\ served < Budget
    /\ served' = served + n
    /\ metered' = metered + n
    /\ UNCHANGED <<held, spent, back, late>>

Grant(h) ==
    /\ held[h] < Largest
    /\ served < Budget
    /\ LET granted == IF Broken = "part" THEN Batch ELSE Min(Batch, Budget - served) IN
        /\ served' = served + granted
        /\ held' = [held EXCEPT ![h] = @ + granted]
    /\ UNCHANGED <<spent, back, late, metered>>

Meter(h, n) ==
    /\ held[h] >= (IF Broken = "own" THEN 1 ELSE n)
    /\ held' = [held EXCEPT ![h] = Max(0, @ - n)]
    /\ spent' = [spent EXCEPT ![h] = IF Broken = "lost" THEN @ + n ELSE 0]
    /\ metered' = metered + n
    /\ UNCHANGED <<served, back, late>>

GiveBack(h) ==
    /\ held[h] >= 1
    /\ back[h] = 0
    /\ back' = [back EXCEPT ![h] = held[h]]
    /\ held' = [held EXCEPT ![h] = 0]
    /\ UNCHANGED <<served, spent, late, metered>>

Arrive(h) ==
    /\ back[h] >= 1
    /\ served' = IF late[h] /\ Broken # "window" THEN served ELSE Max(0, served - back[h])
    /\ back' = [back EXCEPT ![h] = 0]
    /\ late' = [late EXCEPT ![h] = FALSE]
    /\ UNCHANGED <<held, spent, metered>>

Crash(h) ==
    /\ served' = IF Broken = "lost" THEN Max(0, served - held[h] - spent[h]) ELSE served
    /\ held' = [held EXCEPT ![h] = 0]
    /\ spent' = [spent EXCEPT ![h] = 0]
    /\ UNCHANGED <<back, late, metered>>

Roll ==
    /\ served' = 0
    /\ held' = [h \in Holders |-> 0]
    /\ spent' = [h \in Holders |-> 0]
    /\ late' = [h \in Holders |-> back[h] >= 1]
    /\ metered' = 0
    /\ UNCHANGED back

Next ==
    \/ Roll
    \/ \E n \in 1..Largest : Debit(n)
    \/ \E h \in Holders :
        \/ Grant(h) \/ GiveBack(h) \/ Arrive(h) \/ Crash(h)
        \/ \E n \in 1..Largest : Meter(h, n)

Spec == Init /\ [][Next]_vars

Overshoot == metered <= Bound

\* What was metered, is held or is on its way back has been counted. What crashes took is
\* counted, too, and is in neither.
Counted == metered + Owed(Holders) <= served

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == metered <= Bound - 1
=============================================================================
