-- STRING: the text of a transition that runs in the client, which has decided already. Parameters:
-- verdict; held and following, which are texts behind a "=" or empty for none; lasts, which is 0 if
-- nothing is to be written. If the record is no longer what the client decided on, allowed is -1.
local text = call('GET', key)
if (text and '=' .. text or '') ~= held then
  allowed = -1
else
  allowed = verdict + 0
  if write and lasts ~= '0' then call('SET', key, string.sub(following, 2), 'PX', ttl(lasts + 0)) end
end
