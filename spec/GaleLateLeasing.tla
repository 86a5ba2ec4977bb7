-------------------------- MODULE GaleLateLeasing ---------------------------
(* Leasing from a shared fixed window where time passes between the debit    *)
(* and the arrival of a grant, so that the window may roll in between. A     *)
(* node has at most one lease on the way and may ask while it still holds    *)
(* LowWater credits. A lease takes what is left. In coupled mode a grant     *)
(* that arrives late serves the requests that waited for it, and the rest of *)
(* it is dropped. Requests count here when their answer is there; if those   *)
(* that wait count when they are debited, the bound is that of               *)
(* GaleWindowCoupledLeasing.                                                 *)
(* Statement and proof: docs/proofs.md, "Grants that arrive late".           *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Nodes,      \* the nodes; not empty
    Limit,      \* units that one window admits
    Batch,      \* units in one lease
    LowWater,   \* a node asks for more when it holds this many or fewer
    Waiting,    \* the most requests that wait for one lease
    Coupled     \* whether credits expire when the window rolls

VARIABLES
    shared,     \* units left in the shared window
    credits,    \* units that each node holds
    coming,     \* units debited for each node that have not arrived
    late,       \* whether they were debited in an earlier window; coupled mode only
    admitted    \* requests served since the window rolled

vars == <<shared, credits, coming, late, admitted>>

ASSUME Nodes # {} /\ Limit \in Nat /\ Batch \in Nat /\ Batch >= 1
ASSUME LowWater \in Nat /\ Waiting \in 0..Batch /\ Coupled \in BOOLEAN

Bound ==
    IF Coupled
    THEN Limit + Cardinality(Nodes) * Waiting
    ELSE Limit + Cardinality(Nodes) * (Batch + LowWater)

TypeOK ==
    /\ shared \in 0..Limit
    /\ credits \in [Nodes -> 0..(Batch + LowWater)]
    /\ coming \in [Nodes -> 0..Batch]
    /\ late \in [Nodes -> BOOLEAN]
    /\ admitted \in 0..Bound

Init ==
    /\ shared = Limit
    /\ credits = [n \in Nodes |-> 0]
    /\ coming = [n \in Nodes |-> 0]
    /\ late = [n \in Nodes |-> FALSE]
    /\ admitted = 0

Serve(n) ==
    /\ credits[n] >= 1
    /\ credits' = [credits EXCEPT ![n] = @ - 1]
    /\ admitted' = admitted + 1
    /\ UNCHANGED <<shared, coming, late>>

Debit(n) ==
    /\ credits[n] <= LowWater
    /\ coming[n] = 0
    /\ shared >= 1
    /\ LET granted == IF shared < Batch THEN shared ELSE Batch IN
        /\ shared' = shared - granted
        /\ coming' = [coming EXCEPT ![n] = granted]
    /\ UNCHANGED <<credits, late, admitted>>

Arrive(n) ==
    /\ coming[n] >= 1
    /\ coming' = [coming EXCEPT ![n] = 0]
    /\ late' = [late EXCEPT ![n] = FALSE]
    /\ IF late[n]
       THEN /\ \E served \in 0..(IF coming[n] < Waiting THEN coming[n] ELSE Waiting) :
                admitted' = admitted + served
            /\ UNCHANGED credits
       ELSE /\ credits' = [credits EXCEPT ![n] = @ + coming[n]]
            /\ UNCHANGED admitted
    /\ UNCHANGED shared

Roll ==
    /\ shared' = Limit
    /\ admitted' = 0
    /\ IF Coupled
       THEN /\ credits' = [n \in Nodes |-> 0]
            /\ late' = [n \in Nodes |-> coming[n] >= 1]
       ELSE UNCHANGED <<credits, late>>
    /\ UNCHANGED coming

Next == Roll \/ \E n \in Nodes : Serve(n) \/ Debit(n) \/ Arrive(n)

Spec == Init /\ [][Next]_vars

Overshoot == admitted <= Bound

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == admitted <= Bound - 1
=============================================================================
