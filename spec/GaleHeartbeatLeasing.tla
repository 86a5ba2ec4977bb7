------------------------ MODULE GaleHeartbeatLeasing ------------------------
(* A ceiling that the nodes of a fleet share by heartbeats, when a heartbeat *)
(* and what a node does by it are one step. A beat gives a node the share    *)
(* that it is to have, or less: no more than what the others do not hold.    *)
(* What they hold is the larger of their share and their requests in flight. *)
(* A node that leaves has nothing in flight any more.                        *)
(* Statement and proof: docs/proofs.md, "Fleet ceilings".                    *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Nodes,      \* numbers, which order them; not empty
    Limit,      \* the ceiling
    Split,      \* what a node is to have:
                \*   "ceil"    an equal part, rounded up
                \*   "equal"   an equal part; the first nodes get what is left over
                \*   "demand"  one more than it uses, if that is less than it has, and
                \*             else an equal part of what those nodes leave
    Broken      \* the rule that does not hold, to show what it is for:
                \*   "none"
                \*   "flight"  requests in flight count as held
                \*   "held"    what others hold counts

VARIABLES
    active,     \* the nodes of the fleet
    share,      \* requests that each may have in flight
    inFlight    \* and has

vars == <<active, share, inFlight>>

ASSUME Nodes # {} /\ Limit >= 1
ASSUME Split \in {"ceil", "equal", "demand"} /\ Broken \in {"none", "flight", "held"}

Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b

RECURSIVE Sum(_, _)
Sum(f, nodes) ==
    IF nodes = {} THEN 0
    ELSE LET n == CHOOSE x \in nodes : TRUE IN f[n] + Sum(f, nodes \ {n})

\* The part of one of some nodes in so many units.
Part(n, nodes, units) ==
    LET size == Cardinality(nodes)
        rank == Cardinality({m \in nodes : m < n})
    IN (units \div size) + (IF rank < units % size THEN 1 ELSE 0)

Hungry == {n \in active : inFlight[n] >= share[n]}

Target(n) ==
    IF Split = "ceil" THEN (Limit + Cardinality(active) - 1) \div Cardinality(active)
    ELSE IF Split = "equal" THEN Part(n, active, Limit)
    ELSE IF n \notin Hungry THEN inFlight[n] + 1
    ELSE LET spare == Max(0, Limit - Sum([m \in Nodes |-> inFlight[m] + 1], active \ Hungry))
         IN Max(1, Part(n, Hungry, spare))

Held == [n \in Nodes |->
    IF Broken = "held" THEN 0
    ELSE IF Broken = "flight" THEN share[n]
    ELSE Max(share[n], inFlight[n])]

TypeOK ==
    /\ active \in (SUBSET Nodes) \ {{}}
    /\ share \in [Nodes -> 0..Limit]
    /\ inFlight \in [Nodes -> 0..Limit]

Init ==
    /\ active \in (SUBSET Nodes) \ {{}}
    /\ share = [n \in Nodes |-> 0]
    /\ inFlight = [n \in Nodes |-> 0]

Beat(n) ==
    /\ n \in active
    /\ share' = [share EXCEPT ![n] = Max(0, Min(Target(n), Limit - Sum(Held, active \ {n})))]
    /\ UNCHANGED <<active, inFlight>>

Join(n) ==
    /\ n \notin active
    /\ active' = active \union {n}
    /\ share' = [share EXCEPT ![n] = 0]
    /\ UNCHANGED inFlight

Leave(n) ==
    /\ n \in active
    /\ active # {n}
    /\ active' = active \ {n}
    /\ share' = [share EXCEPT ![n] = 0]
    /\ inFlight' = [inFlight EXCEPT ![n] = 0]

Acquire(n) ==
    /\ n \in active
    /\ inFlight[n] < share[n]
    /\ inFlight' = [inFlight EXCEPT ![n] = @ + 1]
    /\ UNCHANGED <<active, share>>

Release(n) ==
    /\ inFlight[n] > 0
    /\ inFlight' = [inFlight EXCEPT ![n] = @ - 1]
    /\ UNCHANGED <<active, share>>

Next == \E n \in Nodes : Beat(n) \/ Join(n) \/ Leave(n) \/ Acquire(n) \/ Release(n)

Spec == Init /\ [][Next]_vars

GlobalCap == Sum(share, active) <= Limit
InflightCap == Sum(inFlight, active) <= Limit

\* False on purpose: a checker must find the states in which the ceiling is reached.
SharesNotReached == Sum(share, active) <= Limit - 1
NotReached == Sum(inFlight, active) <= Limit - 1

\* False on purpose: nodes do join.
NobodyJoins == active # Nodes \/ share # [n \in Nodes |-> IF n = 1 THEN Limit ELSE 0]
=============================================================================
