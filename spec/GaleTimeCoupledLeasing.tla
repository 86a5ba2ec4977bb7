----------------------- MODULE GaleTimeCoupledLeasing -----------------------
(* Nodes lease from one shared token bucket (gcra is the same bucket seen    *)
(* from the other side). Credits live for Life ticks after the request for   *)
(* them was sent. Sending, debit and arrival are steps of their own, with    *)
(* any delay between them. A node that holds several leases at once is       *)
(* several nodes here. Requests that wait for a lease are served by it even  *)
(* if its other units are dead on arrival.                                   *)
(* Levels are kept in parts: one tick refills Rate of them, one unit costs   *)
(* Unit of them.                                                             *)
(* Statement and proof: docs/proofs.md, "Time-coupled".                      *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Nodes,      \* the nodes; not empty
    Batch,      \* the most units in one lease
    Burst,      \* the burst, in units, that callers are promised
    Shared,     \* the burst, in units, of the bucket that nodes lease from
    Rate,       \* parts that one tick refills
    Unit,       \* parts in one unit
    Life,       \* credits may be spent at this age in ticks, not later
    FromSend,   \* TRUE: their age counts from sending; FALSE: from arrival
    Waiting,    \* the most requests that wait for one lease and are served by it
    AtDebit     \* TRUE: those count as admitted at the debit; FALSE: at arrival

VARIABLES
    level,      \* parts in the bucket
    phase,      \* what each node is at: idle, sent, granted, holding
    age,        \* ticks since it sent, at most Life + 1
    amount,     \* units granted to it
    excess      \* what was admitted beyond the rate, in parts: see Envelope

vars == <<level, phase, age, amount, excess>>

ASSUME Nodes # {} /\ Batch >= 1 /\ Burst >= 1 /\ Shared >= 1
ASSUME Rate >= 1 /\ Unit >= 1 /\ Life >= 1
ASSUME FromSend \in BOOLEAN /\ AtDebit \in BOOLEAN /\ Waiting \in 0..Batch

Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b

TypeOK ==
    /\ level \in 0..(Shared * Unit)
    /\ phase \in [Nodes -> {"idle", "sent", "granted", "holding"}]
    /\ age \in [Nodes -> 0..(Life + 1)]
    /\ amount \in [Nodes -> 0..Batch]
    /\ excess \in 0..((Burst + Cardinality(Nodes) * Batch) * Unit)
    /\ \A n \in Nodes : phase[n] = "holding" => amount[n] >= 1 /\ age[n] <= Life

Init ==
    /\ level = Shared * Unit
    /\ phase = [n \in Nodes |-> "idle"]
    /\ age = [n \in Nodes |-> 0]
    /\ amount = [n \in Nodes |-> 0]
    /\ excess = 0

Send(n) ==
    /\ phase[n] = "idle"
    /\ phase' = [phase EXCEPT ![n] = "sent"]
    /\ UNCHANGED <<level, age, amount, excess>>

Forget(n) ==
    /\ phase' = [phase EXCEPT ![n] = "idle"]
    /\ age' = [age EXCEPT ![n] = 0]
    /\ amount' = [amount EXCEPT ![n] = 0]

Debit(n) ==
    /\ phase[n] = "sent"
    /\ level >= Unit
    /\ \E granted \in 1..Min(Batch, level \div Unit) :
        \E served \in 0..(IF AtDebit THEN Min(Waiting, granted) ELSE 0) :
            /\ level' = level - granted * Unit
            /\ excess' = excess + served * Unit
            /\ IF served = granted
               THEN Forget(n)
               ELSE /\ phase' = [phase EXCEPT ![n] = "granted"]
                    /\ amount' = [amount EXCEPT ![n] = granted - served]
                    /\ UNCHANGED age

Arrive(n) ==
    /\ phase[n] = "granted"
    /\ IF FromSend /\ age[n] > Life
       THEN /\ Forget(n)
            /\ \E served \in 0..(IF AtDebit THEN 0 ELSE Min(Waiting, amount[n])) :
                excess' = excess + served * Unit
       ELSE /\ phase' = [phase EXCEPT ![n] = "holding"]
            /\ age' = [age EXCEPT ![n] = IF FromSend THEN @ ELSE 0]
            /\ UNCHANGED <<amount, excess>>
    /\ UNCHANGED level

Spend(n) ==
    /\ phase[n] = "holding"
    /\ excess' = excess + Unit
    /\ IF amount[n] = 1
       THEN Forget(n)
       ELSE /\ amount' = [amount EXCEPT ![n] = @ - 1]
            /\ UNCHANGED <<phase, age>>
    /\ UNCHANGED level

Dies(n) == phase[n] = "holding" /\ age[n] = Life

Tick ==
    /\ level' = Min(Shared * Unit, level + Rate)
    /\ excess' = Max(0, excess - Rate)
    /\ phase' = [n \in Nodes |-> IF Dies(n) THEN "idle" ELSE phase[n]]
    /\ age' = [n \in Nodes |->
                IF phase[n] = "idle" \/ Dies(n) THEN 0 ELSE Min(Life + 1, age[n] + 1)]
    /\ amount' = [n \in Nodes |-> IF Dies(n) THEN 0 ELSE amount[n]]

Next == Tick \/ \E n \in Nodes : Send(n) \/ Debit(n) \/ Arrive(n) \/ Spend(n)

Spec == Init /\ [][Next]_vars

\* For all ticks s <= t, at most Burst + (t - s) * Rate / Unit units are admitted
\* from s to t, both included. docs/proofs.md shows that this says the same.
Envelope == excess <= Burst * Unit

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == excess <= Burst * Unit - 1
=============================================================================
